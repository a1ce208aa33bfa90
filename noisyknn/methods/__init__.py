"""Methods of label correction, one file each; `noisyknn.methods.spec` holds the registry."""
