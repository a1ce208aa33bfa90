"""The paper's baselines and the deep k-NN filter, one file each."""
