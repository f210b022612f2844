"""The op contract: all that a model may ask of the hardware, with a complete reference in torch."""
