"""The library: what `import imgcls` gives, by the same paths as the verbs of the shell."""
