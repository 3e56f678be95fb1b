"""The body: SMPL's function on the embedded body or a user's file (model), the files, posed keypoints without the mesh."""
