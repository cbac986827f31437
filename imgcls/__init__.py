"""imgcls: a workbench for image classification with the experiment tracker at its centre."""
