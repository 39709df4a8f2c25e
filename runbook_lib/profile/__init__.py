"""What the operator chose: one YAML file, checked key by key, and the secrets it names."""
