"""The suites that ship with the package, one YAML file each."""
