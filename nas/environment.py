"""What libraries must find in the environment before they are imported."""

ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # albumentations asks the network at import
    "HF_HUB_OFFLINE": "1",  # nothing is fetched during a search
    # OpenMP threads spin while they wait, which beside other programs on the same cores wastes most of the time: a
    # training step of a ResNet-18 U-Net took 4.6 s instead of 0.4 s at a load of 7 on 2 cores. Spinning briefly is
    # as fast on an idle machine (145 ms against 152 ms for ResNet-10t; not spinning at all: 218 ms).
    "GOMP_SPINCOUNT": "10000",
}
