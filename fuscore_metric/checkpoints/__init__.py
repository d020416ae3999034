"""`fuscore.json` and safetensors: found, downloaded, checked, described."""
