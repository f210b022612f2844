"""DeepSpeed-MII's dialect: its routes, its options, and its pipeline in Python."""
