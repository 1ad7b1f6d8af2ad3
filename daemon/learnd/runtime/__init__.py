"""The running daemon: the main loop, the reader, and their state."""
