"""Reading a suite's file: YAML with line numbers, extending, every key's type and meaning, faults with their place."""
