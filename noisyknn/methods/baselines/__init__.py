"""What the paper compares with, and the deep k-NN filter: one file each."""
