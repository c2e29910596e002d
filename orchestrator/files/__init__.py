"""Files in and out: datasets downloaded, results exported."""
