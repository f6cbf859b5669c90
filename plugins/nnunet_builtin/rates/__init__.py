"""A range test of the learning rate: the plugin `rates`."""
