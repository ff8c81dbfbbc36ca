"""What libraries must find in the environment before they are imported."""

ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # albumentations asks the network at import
    "HF_HUB_OFFLINE": "1",  # nothing is fetched during a search
    # Threads that wait spin by default. Beside any other program on the same cores this made a training step of
    # ResNet-18 six times slower (2 cores, load 7); on an idle machine it costs nothing that could be measured.
    "OMP_WAIT_POLICY": "PASSIVE",
}
