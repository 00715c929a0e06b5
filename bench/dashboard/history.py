"""What a project has behind it, as statements that fill it: versions that go on from one another, each with its
dataset, job, gate, scores and moves; routes with traffic; loops with runs; deletions.

Each statement takes some of the values of `bench.dashboard.filling.fill`. Ids are hashes of names and numbers.
"""

VERSIONS = (
    """
    insert into suites (id, task_id, number, content_hash, items, created_at)
    select md5('suite ' || t)::uuid, (:tasks)[t], 1, md5('suite ' || t), :items, now()
    from generate_series(1, 4) t
    """,
    """
    insert into suite_items (suite_id, place, trajectory_id)
    select md5('suite ' || t)::uuid, place, md5(cast(:project as text) || ' trajectory ' || (4 * place + t + 3))::uuid
    from generate_series(1, 4) t, generate_series(0, :items - 1) place
    """,
    """
    insert into datasets (id, project_id, task_id, content_hash, manifest, object_key, created_at)
    select md5('dataset ' || n)::uuid, :project_id, (:tasks)[1 + n % 4],
        md5('dataset ' || n), '{"task": "a", "new": 20, "replayed": {}, "replay_share": 0.0, "seed": 0}',
        'datasets/' || n, now() - (:versions - n) * interval '10 minutes'
    from generate_series(1, :versions) n
    """,
    """
    insert into dataset_items (dataset_id, place, trajectory_id, replayed)
    select md5('dataset ' || n)::uuid, place,
        md5(cast(:project as text) || ' trajectory ' || greatest(1, :count - 20 * (:versions - n) - place))::uuid, false
    from generate_series(1, :versions) n, generate_series(0, 19) place
    """,
    # One trajectory has been replayed ever since.
    """
    insert into dataset_items (dataset_id, place, trajectory_id, replayed)
    select md5('dataset ' || n)::uuid, 20, md5(cast(:project as text) || ' trajectory ' || :replayed)::uuid, true
    from generate_series(1, :versions) n
    """,
    """
    insert into jobs (
        id, project_id, kind, state, params, adapter_id, dataset_id, attempt, cancel_requested, progress, result,
        error, created_at, started_at, finished_at
    )
    select md5('job ' || n)::uuid, :project_id, 'train_weaver',
        case when n % 50 = 0 then 'failed' else 'succeeded' end,
        jsonb_build_object('task', (cast(:names as text[]))[1 + n % 4], 'parent', n - 1), :adapter,
        md5('dataset ' || n)::uuid, 1, false, '{"phase": "train", "step": 9, "steps": 9}',
        jsonb_build_object('version', n), case when n % 50 = 0 then 'its worker stopped' end,
        at, at, at
    from (
        select n, now() - (:versions - n) * interval '10 minutes' as at from generate_series(1, :versions) n
    ) numbered
    """,
    """
    insert into job_events (job_id, at, level, message, data)
    select md5('job ' || :versions)::uuid, now(), 'progress', 'train', jsonb_build_object('step', n, 'loss', 1.0 / n)
    from generate_series(1, :events) n
    """,
    """
    insert into versions (
        id, adapter_id, number, parent_id, dataset_id, job_id, base_model, base_revision, code_version, artifact_key,
        artifact_hash, report, form, created_at
    )
    select md5('version ' || n)::uuid, :adapter, n,
        case when n > 1 then md5('version ' || n - 1)::uuid end, md5('dataset ' || n)::uuid, md5('job ' || n)::uuid,
        'tiny', '1', 'bench', 'artifacts/' || n, md5('artifact ' || n), report, 'cache',
        now() - (:versions - n) * interval '10 minutes'
    from generate_series(1, :versions) n, (
        select jsonb_build_object('flags', '[]'::jsonb, 'losses', jsonb_agg(1.0 / step)) as report
        from generate_series(1, 150) step
    ) reported
    """,
    """
    insert into evaluations (
        id, suite_id, version_id, base_model, base_revision, score, items, seconds, created_at
    )
    select gen_random_uuid(), md5('suite ' || t)::uuid, case when n > 0 then md5('version ' || n)::uuid end, 'tiny',
        '1', 0.5 + (n % 10) / 20.0,
        case when n % 2 = 0 then cast(:even as jsonb) else cast(:odd as jsonb) end, 1.0, now()
    from generate_series(0, :versions) n, generate_series(1, 4) t
    """,
    """
    insert into gates (
        id, version_id, champion_id, passed, margin, rule, level, policy, comparisons, reasons, created_at
    )
    select md5('gate ' || n)::uuid, md5('version ' || n)::uuid, case when n > 1 then md5('version ' || n - 1)::uuid end,
        n % 10 <> 3, 0.05, 'point', 0.05, case when n % 100 = 50 then 'manual' else 'automatic' end,
        (
            select jsonb_agg(jsonb_build_object(
                'task', (cast(:names as text[]))[t], 'new', t = 1 + n % 4, 'champion', 0.5, 'candidate', 0.55,
                'passed', n % 10 <> 3, 'reason', 'it gained', 'suite', md5('suite ' || t)::uuid, 'evidence', null,
                'learned', true, 'settled', false, 'change', 0.05
            )) from generate_series(1, 4) t
        ),
        '["it gained"]', now() - (:versions - n) * interval '10 minutes'
    from generate_series(1, :versions) n
    """,
    """
    insert into alias_moves (adapter_id, alias, kind, from_version_id, to_version_id, actor, reason, evidence, at)
    select :adapter, 'champion', 'promotion',
        case when n > 1 then md5('version ' || n - 1)::uuid end, md5('version ' || n)::uuid, 'bench', 'it gained', '{}',
        now() - (:versions - n) * interval '10 minutes'
    from generate_series(1, :versions) n
    """,
    """
    insert into aliases (adapter_id, name, version_id, moved_at)
    select :adapter, 'champion', md5('version ' || :versions)::uuid, now()
    """,
)

TRAFFIC = (
    """
    insert into routes (
        id, adapter_id, number, kind, state, salt, level, smallest_effect, promotion, created_at, ended_at
    )
    select md5('route ' || n)::uuid, :adapter, n, 'ab',
        case when n = :routes then 'live' else 'ended' end, 'salt', 0.05, 0.05, 'never', now(),
        case when n < :routes then now() end
    from generate_series(1, :routes) n
    """,
    """
    insert into route_arms (route_id, place, version_id, weight)
    select md5('route ' || n)::uuid, place, md5('version ' || :versions - place)::uuid, 0.5
    from generate_series(1, :routes) n, generate_series(0, 1) place
    """,
    # A fifth of all answers came by the live route, the others from earlier versions.
    """
    insert into exposures (completion_id, project_id, version_id, route_id, session_id, at)
    select 'chatcmpl-' || n, :project_id,
        md5('version ' || case when n % 5 = 0 then :versions - n / 5 % 2 else 1 + n % :versions end)::uuid,
        case when n % 5 = 0 then md5('route ' || :routes)::uuid end, 'session-' || n / 5,
        now() - (:answers - n) * interval '2 seconds'
    from generate_series(1, :answers) n
    """,
    """
    insert into feedback (
        completion_id, project_id, source, reward, comment, actor, version_id, route_id, unit, counted, at
    )
    select 'chatcmpl-' || n, :project_id, 'user', n % 3 / 2.0, '', 'bench',
        md5('version ' || :versions - n / 5 % 2)::uuid, md5('route ' || :routes)::uuid,
        'session-' || n / 5, true, now() - (:answers - n) * interval '2 seconds'
    from generate_series(5, :answers, 25) n
    """,
)

OTHER_ADAPTERS = (
    """
    insert into adapters
    select made.* from adapters a, generate_series(1, :others) n, jsonb_populate_record(
        a, jsonb_build_object('id', md5('adapter ' || n)::uuid, 'name', a.name || '-' || n)
    ) made
    where a.id = :adapter
    """,
    """
    insert into datasets
    select made.* from datasets d, generate_series(1, :others) n, jsonb_populate_record(
        d, jsonb_build_object(
            'id', md5('other dataset ' || n)::uuid, 'content_hash', md5('other dataset ' || n), 'task_id',
            (:tasks)[1 + n % 4]
        )
    ) made
    where d.id = md5('dataset 1')::uuid
    """,
    """
    insert into dataset_items (dataset_id, place, trajectory_id, replayed)
    select md5('other dataset ' || n)::uuid, place,
        md5(cast(:project as text) || ' trajectory ' || 4 * (:count / 4 - n - place) + n % 4)::uuid, false
    from generate_series(1, :others) n, generate_series(0, 19) place
    """,
    """
    insert into jobs (
        id, project_id, kind, state, params, adapter_id, dataset_id, attempt, cancel_requested, progress, created_at,
        finished_at
    )
    select md5('other job ' || n)::uuid, :project_id, 'train_weaver', 'succeeded', '{"task": "b"}',
        md5('adapter ' || n)::uuid, md5('other dataset ' || n)::uuid, 1, false, '{}', now(), now()
    from generate_series(1, :others) n
    """,
    """
    insert into versions
    select made.* from versions v, generate_series(1, :others) n, jsonb_populate_record(
        v, jsonb_build_object(
            'id', md5('other version ' || n)::uuid, 'adapter_id', md5('adapter ' || n)::uuid, 'dataset_id',
            md5('other dataset ' || n)::uuid, 'job_id', md5('other job ' || n)::uuid
        )
    ) made
    where v.id = md5('version 1')::uuid
    """,
    """
    insert into aliases (adapter_id, name, version_id, moved_at)
    select md5('adapter ' || n)::uuid, 'champion', md5('other version ' || n)::uuid, now()
    from generate_series(1, :others) n
    """,
)

LOOPS = (
    """
    insert into schedules (
        id, project_id, name, adapter_id, task_id, kind, cron, time_zone, params, next_run_at, last_job_id, created_at
    )
    select md5('schedule ' || n)::uuid, :project_id, case when n > 0 then 'nightly-' || n else 'nightly' end,
        case when n > 0 then md5('adapter ' || n)::uuid else :adapter end, (:tasks)[1 + n % 4], 'cron',
        '0 3 * * *', 'UTC', '{"training": {}, "min_reward": 0.5, "promote": true}', now() + interval '9 hours',
        case when n > 0 then md5('other job ' || n)::uuid else md5('job ' || :versions)::uuid end,
        now() - interval '99 days'
    from generate_series(0, :others) n
    """,
    """
    insert into schedule_runs (schedule_id, outcome, due_at, at, missed, new_trajectories, up_to_seq, job_id, reason)
    select md5('schedule 0')::uuid, 'started', now(), now(), 0, 20, 20 * n, md5('job ' || n)::uuid, 'it was due'
    from generate_series(1, :versions) n
    """,
    """
    insert into loops (
        id, project_id, adapter_id, task_id, schedule_id, quiet_hours, most_failures, setup, state, held, reason,
        advice, since, counted_from, created_at
    )
    select md5('loop ' || n)::uuid, :project_id, case when n > 0 then md5('adapter ' || n)::uuid else :adapter end,
        (:tasks)[1 + n % 4], md5('schedule ' || n)::uuid, 24, 3, '{}', 'running', false, '', '', now(), now(),
        now() - interval '99 days'
    from generate_series(0, :others) n
    """,
    """
    insert into runs (
        id, project_id, task_id, scope, session_id, "user", state, opened_at, last_at, closed_at, idle_seconds, tip,
        size, turns, calls, details, trajectory_id, refusal_code, refusal_reason
    )
    select md5('run ' || n)::uuid, :project_id, (:tasks)[1 + n % 4], 'session-' || n, 'session-' || n,
        'user-' || n / 50, case when n % 1000 = 0 then 'open' else 'closed' end, at, at,
        case when n % 1000 <> 0 then at end,
        case when n % 1000 = 0 then 1e9 else 600 end,  -- the open ones stay so
        md5('tip ' || n), 900, 3, 3, '{}',
        case when n % 40 <> 0 then md5(cast(:project as text) || ' trajectory ' || 4 * n)::uuid end,
        case when n % 40 = 0 and n % 1000 <> 0 then 'too_long' end, case when n % 40 = 0 then 'it is too long' end
    from (
        select n, now() - (:count - 4 * n) * interval '1 second' as at from generate_series(1, :count / 4) n
    ) numbered
    """,
)

JUDGEMENTS = (
    """
    insert into judges (
        id, project_id, name, kind, model, rubric, scale, group_size, temperature, max_answer_tokens, max_characters,
        too_long, daily_calls, created_at
    ) values (
        md5('judge')::uuid, :project_id, 'helpful', 'pointwise', 'base', 'Is it helpful?', 10, 1, 0, 100,
        9000, 'truncate', 0, now()
    )
    """,
    """
    insert into judgements (
        id, judge_id, trajectory_id, job_id, state, score, reason, verdict, model, prompt_hash, calls, prompt_tokens,
        answer_tokens, at
    )
    select md5('judgement ' || n)::uuid, md5('judge')::uuid,
        md5(cast(:project as text) || ' trajectory ' || 10 * n)::uuid, md5('job ' || 1 + n % :versions)::uuid, 'scored',
        n % 10 / 10.0, 'it is helpful', '{}', 'base', md5('prompt ' || n), 1, 200, 9, now()
    from generate_series(1, :count / 10) n
    """,
)

DELETIONS = (
    """
    insert into deletions (
        id, project_id, scope, subject_hash, policy, actor, reason, trajectories, affected, created_at
    )
    select md5('deletion ' || n)::uuid, :project_id, 'trajectory', md5('gone ' || n), 'keep', 'bench', 'asked for it',
        jsonb_build_array(jsonb_build_object('id', md5('gone ' || n)::uuid, 'content_hash', md5('gone ' || n))),
        jsonb_build_object(
            'trajectories', 1, 'answers', 0, 'responses', 0, 'feedback', 0, 'runs', 0, 'suites', '[]'::jsonb,
            'datasets', jsonb_build_array(jsonb_build_object('hash', md5('dataset ' || n), 'task', 'a', 'items', 1)),
            'jobs', '[]'::jsonb, 'versions', touched.versions, 'restarted', '{}'::jsonb, 'retrained_by', '[]'::jsonb
        ), now()
    from generate_series(1, :deletions) n, (
        select jsonb_agg(jsonb_build_object(
            'adapter', 'bot', 'number', v, 'aliases', '[]'::jsonb, 'routes', '[]'::jsonb, 'exposures', 0
        )) as versions
        from generate_series(1, :versions) v
    ) touched
    """,
    """
    insert into deletion_datasets (deletion_id, dataset_id, items)
    select md5('deletion ' || n)::uuid, md5('dataset ' || 1 + n % :versions)::uuid, 1
    from generate_series(1, :deletions) n
    """,
    """
    insert into erasures (deletion_id, datasets, objects, job_ids, swept_at, finished_at)
    select md5('deletion ' || n)::uuid, '{}', '{}', '{}', now(), now() from generate_series(1, :deletions) n
    """,
)
