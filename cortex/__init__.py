"""Deploy a trained model to CPU, GPU and AWS Inferentia from one yaml each."""

__version__ = "0.1.0"
