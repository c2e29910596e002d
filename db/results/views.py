"""The public face of the results: SQL views, each with ``run`` as its first column.

A view joins jobs to result rows by the artifact that they share, so that a result computed once shows under
every run that has it. ``fidelity`` and ``seed`` name the run's variant. Rates and accuracies are fractions of
1, times seconds, ``p_tar`` one of the 101 thresholds; accuracies of no images are NULL. Casts give a rate the
same type on every database.
"""

_EXIT = """
SELECT j.run_id AS run, j.fidelity, j.seed, s.policy, s.kind, s.level, s.p_tar, {exit} AS exit, s.n{exit} AS exits,
       CAST({cumulative} AS DOUBLE PRECISION) / s.n AS cumulative_rate,
       CAST(s.n{exit} AS DOUBLE PRECISION) / NULLIF(s.n - ({before}), 0) AS conditional_rate,
       CAST({independent} AS DOUBLE PRECISION) / s.n AS independent_rate,
       CAST(s.c{exit} AS DOUBLE PRECISION) / NULLIF(s.n{exit}, 0) AS accuracy
FROM jobs j JOIN sweep_points s ON s.artifact_id = j.artifact_id
"""

_INDEPENDENT = {
    1: "CASE WHEN s.policy <> 'cloud-only' THEN s.r1 END",
    2: "CASE WHEN s.policy <> 'cloud-only' THEN s.r2 END",
    3: "CASE s.policy WHEN 'cloud-only' THEN NULL WHEN 'edge-only' THEN s.n ELSE s.r3 END",
    4: "CASE WHEN s.policy <> 'edge-only' THEN s.n END",
}
"""A policy's last exit answers all that reach it (docs/paper.md §9); NULL for an exit that the policy does not have."""

_GAPS = "SUM(CASE WHEN {of} THEN b.n * ABS(b.accuracy - b.mean_confidence) ELSE 0 END)"
_COUNT = "SUM(CASE WHEN {of} THEN b.n ELSE 0 END)"

VIEWS = {
    "trade_off": """
SELECT j.run_id AS run, j.fidelity, j.seed, s.policy, s.kind, s.level, s.p_tar, s.n AS images,
       CAST(s.c1 + s.c2 + s.c3 + s.c4 AS DOUBLE PRECISION) / s.n AS overall_accuracy,
       CAST(s.c1 + s.c2 + s.c3 AS DOUBLE PRECISION) / NULLIF(s.n1 + s.n2 + s.n3, 0) AS edge_accuracy,
       CAST(s.c4 AS DOUBLE PRECISION) / NULLIF(s.n4, 0) AS cloud_accuracy,
       s.n1 + s.n2 + s.n3 AS edge_exits,
       CAST(s.n4 AS DOUBLE PRECISION) / s.n AS offloading_probability,
       CAST(s.n1 + s.n2 + s.n3 AS DOUBLE PRECISION) / s.n AS edge_exit_probability
FROM jobs j JOIN sweep_points s ON s.artifact_id = j.artifact_id
WHERE j.stage = 'sweep'
""",
    "accuracy": """
SELECT run, fidelity, seed, policy, kind, level, p_tar, images,
       overall_accuracy, edge_accuracy, cloud_accuracy, edge_exits
FROM trade_off
""",
    "offloading": """
SELECT run, fidelity, seed, policy, kind, level, p_tar, images, offloading_probability, edge_exit_probability
FROM trade_off
""",
    "exit_rates": "UNION ALL".join(
        _EXIT.format(
            exit=k,
            cumulative=" + ".join(f"s.n{i}" for i in range(1, k + 1)),
            before=" + ".join(["0", *(f"s.n{i}" for i in range(1, k))]),
            independent=_INDEPENDENT[k],
        )
        for k in (1, 2, 3, 4)
    ),
    "latency": """
SELECT j.run_id AS run, j.fidelity, j.seed, l.policy, l.network, l.kind, l.level, l.p_tar, l.payload, l.n AS images,
       CAST(l.offloaded AS DOUBLE PRECISION) / l.n AS offloading_probability,
       l.mean_seconds, l.p50_seconds, l.p95_seconds,
       l.classifier_seconds, l.edge_seconds, l.link_seconds, l.cloud_seconds
FROM jobs j JOIN latencies l ON l.artifact_id = j.artifact_id
""",
    "calibration": f"""
SELECT j.run_id AS run, j.fidelity, j.seed, b.expert, b.kind, b.level, b.exit,
       {_COUNT.format(of="b.calibrated")} AS images,
       {_GAPS.format(of="NOT b.calibrated")} / {_COUNT.format(of="NOT b.calibrated")} AS ece_before,
       {_GAPS.format(of="b.calibrated")} / {_COUNT.format(of="b.calibrated")} AS ece_after
FROM jobs j JOIN reliability_bins b ON b.artifact_id = j.artifact_id
GROUP BY j.run_id, j.fidelity, j.seed, b.expert, b.kind, b.level, b.exit
""",  # noqa: S608  # our own text
    "reliability": """
SELECT j.run_id AS run, j.fidelity, j.seed, b.expert, b.kind, b.level, b.exit,
       CASE WHEN b.calibrated THEN 1 ELSE 0 END AS calibrated, b.bin, b.n AS images, b.mean_confidence, b.accuracy
FROM jobs j JOIN reliability_bins b ON b.artifact_id = j.artifact_id
""",
    "own_reliability": """
SELECT run, fidelity, seed, expert, exit, calibrated, bin, SUM(images) AS images,
       SUM(images * mean_confidence) / SUM(images) AS mean_confidence,
       SUM(images * accuracy) / SUM(images) AS accuracy
FROM reliability WHERE kind = expert GROUP BY run, fidelity, seed, expert, exit, calibrated, bin
""",
    "own_calibration": """
SELECT run, fidelity, seed, expert, exit, calibrated, CAST(SUM(images) AS BIGINT) AS images,
       SUM(images * ABS(accuracy - mean_confidence)) / SUM(images) AS ece
FROM own_reliability GROUP BY run, fidelity, seed, expert, exit, calibrated
""",
    "outage": """
SELECT j.run_id AS run, j.fidelity, j.seed, o.policy, o.kind, o.level, o.p_tar, o.n AS images,
       o.batch_size, o.shuffles, o.edge_outage, o.edge_ci95, o.overall_outage, o.overall_ci95,
       o.batches_without_edge
FROM jobs j JOIN outages o ON o.artifact_id = j.artifact_id
""",
    "deadlines": """
SELECT j.run_id AS run, j.fidelity, j.seed, d.policy, d.network, d.kind, d.level, d.p_tar, d.payload,
       d.t_tar_seconds, d.n AS images, d.batch_size, d.shuffles, d.missed, d.ci95
FROM jobs j JOIN missed_deadlines d ON d.artifact_id = j.artifact_id
""",
    "payload_accuracy": """
SELECT j.run_id AS run, j.fidelity, j.seed, p.payload, p.expert, p.kind, p.level, SUM(p.n) AS images,
       CAST(SUM(p.agreeing) AS DOUBLE PRECISION) / SUM(p.n) AS agreement,
       CAST(SUM(p.correct) AS DOUBLE PRECISION) / SUM(p.n) AS final_accuracy
FROM jobs j JOIN payload_answers p ON p.artifact_id = j.artifact_id
GROUP BY j.run_id, j.fidelity, j.seed, p.payload, p.expert, p.kind, p.level
""",
    "classifier_confusion": """
SELECT j.run_id AS run, j.fidelity, j.seed, c.kind, c.level, c.predicted, COUNT(*) AS images,
       CAST(COUNT(*) AS DOUBLE PRECISION)
           / SUM(COUNT(*)) OVER (PARTITION BY j.run_id, j.fidelity, j.seed, c.kind, c.level) AS share
FROM jobs j JOIN classifications c ON c.artifact_id = j.artifact_id
GROUP BY j.run_id, j.fidelity, j.seed, c.kind, c.level, c.predicted
""",
    "classifier_cost": """
SELECT c.run, c.fidelity, c.seed, c.kind, c.level, c.p_tar, c.images,
       o.overall_accuracy AS oracle_accuracy, c.overall_accuracy AS classifier_accuracy,
       o.overall_accuracy - c.overall_accuracy AS accuracy_cost,
       c.offloading_probability - o.offloading_probability AS offloading_cost
FROM trade_off c JOIN trade_off o ON o.run = c.run AND o.fidelity = c.fidelity AND o.seed = c.seed
     AND o.kind = c.kind AND o.level = c.level AND o.p_tar = c.p_tar
WHERE c.policy = 'classifier' AND o.policy = 'oracle'
""",
    "classifier_latency_cost": """
SELECT c.run, c.fidelity, c.seed, c.network, c.kind, c.level, c.p_tar, c.payload, c.images,
       o.mean_seconds AS oracle_mean_seconds, c.mean_seconds AS classifier_mean_seconds,
       c.mean_seconds - o.mean_seconds AS latency_cost,
       c.classifier_seconds AS cost_of_asking,
       c.mean_seconds - o.mean_seconds - c.classifier_seconds AS cost_of_mistakes
FROM latency c JOIN latency o ON o.run = c.run AND o.fidelity = c.fidelity AND o.seed = c.seed
     AND o.network = c.network AND o.kind = c.kind AND o.level = c.level AND o.p_tar = c.p_tar
     AND o.payload = c.payload
WHERE c.policy = 'classifier' AND o.policy = 'oracle'
""",
    "ablation": """
SELECT a.run, a.fidelity, a.seed, a.policy, a.kind, a.level, a.p_tar, a.images,
       a.overall_accuracy, a.edge_exit_probability, a.edge_accuracy,
       a.overall_accuracy - b.overall_accuracy AS overall_accuracy_gain,
       a.edge_exit_probability - b.edge_exit_probability AS edge_exit_gain,
       a.edge_accuracy - b.edge_accuracy AS edge_accuracy_gain
FROM trade_off a JOIN trade_off b ON b.run = a.run AND b.fidelity = 'corrected' AND b.seed = a.seed
     AND b.policy = a.policy AND b.kind = a.kind AND b.level = a.level AND b.p_tar = a.p_tar
""",
    "paper_comparison": """
SELECT o.run, o.fidelity, o.seed, p.policy, p.kind, p.level, p.p_tar, o.images,
       p.overall_accuracy AS published_overall_accuracy, o.overall_accuracy,
       p.edge_exit_probability AS published_edge_exit_probability, o.edge_exit_probability,
       p.edge_accuracy AS published_edge_accuracy, o.edge_accuracy
FROM trade_off o JOIN published p
     ON p.policy = o.policy AND p.kind = o.kind AND p.level = o.level AND p.p_tar = o.p_tar
""",
    "run_progress": """
SELECT j.run_id AS run, r.state AS run_state, r.profile, j.stage, COUNT(*) AS jobs,
       SUM(CASE WHEN j.cached THEN 1 ELSE 0 END) AS cached,
       SUM(CASE WHEN j.state = 'waiting' THEN 1 ELSE 0 END) AS waiting,
       SUM(CASE WHEN j.state IN ('ready', 'queued') THEN 1 ELSE 0 END) AS queued,
       SUM(CASE WHEN j.state = 'running' THEN 1 ELSE 0 END) AS running,
       SUM(CASE WHEN j.state = 'succeeded' THEN 1 ELSE 0 END) AS succeeded,
       SUM(CASE WHEN j.state = 'failed' THEN 1 ELSE 0 END) AS failed,
       SUM(CASE WHEN j.state = 'skipped' THEN 1 ELSE 0 END) AS skipped,
       SUM(CASE WHEN j.state = 'cancelled' THEN 1 ELSE 0 END) AS cancelled
FROM runs r JOIN jobs j ON j.run_id = r.id
GROUP BY j.run_id, r.state, r.profile, j.stage
""",
    "run_history": """
SELECT r.id AS run, r.plan, r.profile, r.state AS run_state,
       utc(r.created_at) AS created, utc(r.finished_at) AS finished, r.finished_at - r.created_at AS seconds
FROM runs r
""",
    "attempt_history": """
SELECT j.run_id AS run, a.job_id AS job, j.stage, j.label, a.attempt, a.worker, a.host,
       utc(a.started_at) AS started, utc(a.finished_at) AS finished, a.finished_at - a.started_at AS seconds,
       a.outcome, a.peak_memory_bytes
FROM jobs j JOIN attempts a ON a.job_id = j.id
""",
    "latest_run": "SELECT MAX(id) AS run FROM runs",
}
"""Definition by name, each after those that it stands on.

``utc(COLUMN)`` is a time as text, which ``db.schema`` writes as each database does.
"""
