"""The names of what a run leaves in its folder."""

CONFIG_FILE = "config.yaml"
DELTA_FILE = "delta.safetensors"
RESULT_FILE = "result.json"
REQUESTS_FILE = "requests.json"
DIAGNOSIS_FILE = "diagnosis.json"
FIGURES = "figures"
