import os

os.environ.setdefault("OMP_NUM_THREADS", "2")  # before torch is imported: tiny tensors gain nothing from more threads
