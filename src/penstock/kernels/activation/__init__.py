"""The elementwise non-linearity of a plain MLP."""
