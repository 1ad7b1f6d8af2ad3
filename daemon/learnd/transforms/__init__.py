"""What happens to a batch between decoding and learning."""
