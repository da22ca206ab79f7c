-- What leaves nothing in a session, as the catalogue has it. One row: names of functions that do not, and whether neither
-- anything that runs by itself (triggers, defaults, views, rules, policies, constraints) nor a function of the application does.
with
    theirs as (
        select p.oid, p.proname, p.prosrc, p.prokind, l.lanname in ('sql', 'plpgsql') as readable, n.nspname = 'pgfleet' as ours
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
        where n.nspname not in ('pg_catalog', 'information_schema')
    ),
    -- PostgreSQL's own: immutable and stable functions change nothing; of the volatile ones, those that read a clock, chance, or
    -- the server's state, and locks that end with the transaction.
    own as (
        select proname, bool_and(provolatile <> 'v' or proname in (
                   'random', 'random_normal', 'gen_random_uuid', 'uuidv4', 'uuidv7', 'clock_timestamp', 'timeofday',
                   'pg_sleep', 'pg_sleep_for', 'pg_sleep_until', 'nextval', 'currval', 'lastval',
                   'txid_current', 'pg_current_xact_id', 'txid_status', 'pg_xact_status',
                   'pg_current_wal_lsn', 'pg_current_wal_insert_lsn', 'pg_current_wal_flush_lsn', 'pg_is_in_recovery',
                   'pg_last_wal_replay_lsn', 'pg_last_wal_receive_lsn', 'pg_last_xact_replay_timestamp',
                   'pg_advisory_xact_lock', 'pg_advisory_xact_lock_shared', 'pg_try_advisory_xact_lock',
                   'pg_try_advisory_xact_lock_shared')) as harmless
        from pg_proc
        where pronamespace = 'pg_catalog'::regnamespace and prokind <> 'p'
        group by proname
    ),
    -- In C, and the like: what these keep in a session cannot be read.
    opaque as (select distinct proname from theirs where not readable and not ours),
    -- Every text of the application that the server may run. A function written as BEGIN ATOMIC has no source, only a definition.
    texts as (
        select coalesce(nullif(prosrc, ''), pg_get_functiondef(oid)) as body
        from theirs where readable and not ours and prokind in ('f', 'p')
        union all
        select pg_get_viewdef(c.oid) from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('v', 'm') and n.nspname not in ('pg_catalog', 'information_schema')
        union all
        select pg_get_ruledef(r.oid) from pg_rewrite r join pg_class c on c.oid = r.ev_class
            join pg_namespace n on n.oid = c.relnamespace
        where r.rulename <> '_RETURN' and n.nspname not in ('pg_catalog', 'information_schema')
        union all
        select pg_get_expr(adbin, adrelid) from pg_attrdef
        union all
        select concat(pg_get_expr(polqual, polrelid), ' ', pg_get_expr(polwithcheck, polrelid)) from pg_policy
        union all
        select pg_get_constraintdef(oid) from pg_constraint where contype = 'c'
        union all
        select regexp_replace(pg_get_triggerdef(oid), '\mexecute (function|procedure)\M', '', 'i') from pg_trigger where not tgisinternal
    ),
    -- SET hides behind comments. Those that hold others no regular expression can follow to their end: there a SET behind any
    -- comment counts.
    touching as (
        select from texts
        where body ~* '\m(set_config|pg_(try_)?advisory_(lock|unlock)\w*|listen|unlisten|prepare|deallocate|execute|temp|temporary|pg_temp\w*|load|discard|setseed|lo_\w+|setval|pg_notify|notify|dblink\w*|hold)\M'
           or body ~* '(^|;|\m(begin|then|else|loop|as)\M)(\s|--[^\n\r]*[\n\r]|/\*([^*]|\*+[^*/])*\*+/)*(re)?set\M'
           or (body ~ '/\*([^*]|\*+[^*/])*/\*' and body ~* '\*/(\s|--[^\n\r]*[\n\r]|/\*([^*]|\*+[^*/])*\*+/)*(re)?set\M')
           -- Names and blocks whose text is written with escapes.
           or body ~* 'u&"|\mdo\M(\s|--[^\n\r]*[\n\r]|/\*([^*]|\*+[^*/])*\*+/)*(language|e?''|u&'')'
           or exists (select from opaque where body ~ ('\m' || regexp_replace(proname, '(\W)', '\\\1', 'g') || '\M'))
        limit 1
    )
select array(
           select proname::text from own where harmless
           union
           select proname::text from theirs group by proname having bool_and(readable and prokind in ('f', 'a', 'w'))
           except
           select proname::text from own where not harmless
           except
           select proname::text from opaque
       ) as functions,
       not exists (select from touching) as everything_else
