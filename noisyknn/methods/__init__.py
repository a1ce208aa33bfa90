"""Methods of label correction, one file each; `noisyknn.methods.spec` has the registry."""
