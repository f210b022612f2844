"""What a model's words mean: thoughts, answers and tool calls, told apart while they arrive.

Each format has a file of its own, with one streaming reader: a generator that reads the text as if
all of it were there, and pauses where it is not (`reader`). What it has read depends on the text
alone, never on the pieces in which it came, and costs time linear in its length.
"""
