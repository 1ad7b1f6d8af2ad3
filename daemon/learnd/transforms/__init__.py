"""The steps between decoding and learning."""
