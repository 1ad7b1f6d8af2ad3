"""The child process that builds and verifies one export."""
