"""OPERATIONS: what the product does. `Engine.perform` is the only way to make it do anything."""
