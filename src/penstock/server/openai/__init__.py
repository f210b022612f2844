"""OpenAI's dialect: completions, chat completions and models."""
