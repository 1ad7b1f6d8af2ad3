"""The running daemon: the loop, the reader, and what they keep."""
