"""How well the model does, on samples it has not learned yet."""
