"""Alarms: from the readings and the model's loss to the question whether something is wrong, and since when."""
