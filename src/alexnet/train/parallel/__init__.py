"""One network trained by several processes, on the devices of one machine or more, by PyTorch's
torch.distributed: who they are (`ranks.py`), what each computes (`layout.py`) and what they
exchange (`exchange.py`).
"""
