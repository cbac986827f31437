"""A folder of images is looked through, and an experiment file is proposed: `imgcls init`."""
