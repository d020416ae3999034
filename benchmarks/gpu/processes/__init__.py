"""What runs in processes of its own, as it could crash, hang or hold on to the device."""
