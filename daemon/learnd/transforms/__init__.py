"""Steps between decoding and learning."""
