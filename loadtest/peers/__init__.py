"""What teams use today, on the same cases, judge and machine as ours."""
