"""The plugin `models`: models of other frameworks, made into ours."""
