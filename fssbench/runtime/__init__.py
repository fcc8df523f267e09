"""Runtime: devices, memory, environment and locked folders of this machine."""
