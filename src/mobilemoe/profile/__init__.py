"""What running a model costs on this machine: time and memory, measured."""
