"""The recipes that ship with saccade, one YAML file each."""
