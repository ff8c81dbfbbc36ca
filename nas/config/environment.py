"""What this program's processes and their libraries must find in the environment when they start."""

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # nothing is fetched during a search
    # Python looks for modules in the current folder first, which may be a run or scans of a stranger: `numba.py` there
    # would run in every worker and loader.
    "PYTHONSAFEPATH": "1",
    # OpenMP threads spin while they wait, which wastes most of the time if other programs use the same cores:
    # forward and backward of a ResNet-18 U-Net took 4.6 s with two threads, 0.4 s with one, on 2 busy cores.
    # Spinning briefly is as fast on an idle machine (ResNet-10t: 145 ms, by default 152 ms, not spinning at all
    # 218 ms) and as fast as not spinning beside four busy processes (0.65 s and 0.71 s).
    "GOMP_SPINCOUNT": "10000",
}
