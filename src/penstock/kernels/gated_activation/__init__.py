"""The non-linearity of a gated MLP: one half of the row gates the other."""
