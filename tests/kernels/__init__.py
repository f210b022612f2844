"""Every operation against a plain formula."""
