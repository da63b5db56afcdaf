"""The commands beside `run` and `plan`: each file declares its arguments and does one thing."""
