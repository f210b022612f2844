"""Anthropic's API: its Messages, answered by the same pipeline as OpenAI's chats."""
