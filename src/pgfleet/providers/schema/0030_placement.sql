-- The map of keys as this shard knows it, and the guards that refuse what is not this shard's to change.
--
-- A guarded statement holds a shared advisory lock, 1885824512, 1, to the end of its transaction; what this shard owns changes
-- under the exclusive one only. So every transaction is judged by one ownership from its first guarded statement to its COMMIT.

-- What clients read. `since` is the epoch at which what this shard owns last changed: older statements may be meant for another.
create table if not exists pgfleet.placement (
    epoch     bigint      not null,
    since     bigint      not null check (since <= epoch),
    map       text        not null, -- Placement.to_json()
    narrowed  text[]      not null default '{}', -- maps that a key must be placed here by, too, until every shard has this epoch
    functions text        not null, -- digest of owns_… and holds
    at        timestamptz not null default now(),
    only_row  boolean     primary key default true check (only_row)
);

-- What guards read, and nobody else: a transaction that waited for the lock reads it afterwards, and taking a lock on a table is
-- when PostgreSQL learns what others have changed, functions included. Whoever held that lock before might miss it.
create table if not exists pgfleet.gate (
    since    bigint  not null,
    turn     bigint  not null, -- grows by one with every ownership; pgfleet.turn() tells the newest, whatever the snapshot
    only_row boolean primary key default true check (only_row)
);

-- Tables that are placed, whether they exist or not.
create table if not exists pgfleet.placed (
    relation text   primary key,
    key      text   not null,
    seconds  text[] not null, -- other columns that decide, for keys that are spread
    owns     text   not null  -- the function in this schema that judges its rows
);

-- Whatever default privileges there are.
revoke all on pgfleet.placement, pgfleet.placed, pgfleet.gate from public, :"app", :"monitor";
grant select on pgfleet.placement, pgfleet.placed to :"app", :"monitor";

-- SQLSTATE PF001: opened under an old map. PF002: a key that is not this shard's.
create or replace function pgfleet.refuse(state text, relation text, key text, message text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    known   pgfleet.placement;
    shard   text := (select s.shard from pgfleet.shard s);
begin
    select * into known from pgfleet.placement;
    raise exception using
        errcode = state,
        message = format('shard %s %s', shard, message),
        detail = json_build_object(
            'shard', shard, 'epoch', known.epoch, 'since', known.since, 'settled', known.narrowed = '{}',
            'table', relation, 'key', key
        ),
        hint = 'Read the map of keys again, from etcd or from pgfleet.placement of any shard.',
        schema = 'public', table = relation;
end $$;

-- Every guarded statement comes through here, so it is one lock and one query, and no setting is changed on the way: all names
-- are qualified, operators by the functions behind them. Stable, so that it sees what the statement sees that fired it.
create or replace function pgfleet.guard_statement() returns trigger
    language plpgsql stable security definer as $$
declare
    refused pg_catalog.bool;
begin
    -- IF, because PERFORM would be another query.
    if pg_catalog.pg_advisory_xact_lock_shared(1885824512, 1) is null then
        return null;
    end if;
    select
        pg_catalog.int8ne(g.turn, pgfleet.turn())
        or case
            when pg_catalog.textne(pg_catalog.current_setting('pgfleet.epoch', true), '')
            then pg_catalog.int8lt(pg_catalog.current_setting('pgfleet.epoch', true)::bigint, g.since)
            else false
        end
        or case
            when pg_catalog.textne(pg_catalog.current_setting('pgfleet.key', true), '')
            then pgfleet.holds(tg_argv[0], pg_catalog.current_setting('pgfleet.key', true)) is false
            else false
        end
    into refused
    from pgfleet.gate g;
    if refused is not false then
        perform pgfleet.refuse_statement(tg_argv[0], (select g.turn from pgfleet.gate g));
    end if;
    return null;
end $$;

-- Why a statement on relation is refused. `seen` is the turn as that statement sees it: one that began before this shard owned
-- what it owns now may miss rows that came with the change, and must not say that it found none.
create or replace function pgfleet.refuse_statement(relation text, seen bigint) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    epoch constant text := nullif(current_setting('pgfleet.epoch', true), '');
    claim constant text := current_setting('pgfleet.key', true);
    key   constant text := substr(claim, strpos(claim, ':') + 1);
    since constant bigint := (select g.since from pgfleet.gate g);
begin
    if epoch::bigint < since then
        perform pgfleet.refuse(
            'PF001', relation, null, format('owns other keys since epoch %s, this was sent under %s', since, epoch)
        );
    elsif seen is not distinct from pgfleet.turn() then
        perform pgfleet.refuse('PF002', relation, key, format('does not own %L of %s', key, relation));
    elsif current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'could not serialize access due to a change of what this shard owns' using
            errcode = 'serialization_failure', hint = 'The transaction might succeed if retried.';
    else
        perform pgfleet.refuse('PF001', relation, null, 'owns other keys since this statement began');
    end if;
end $$;

-- Called for rows that are not owned only (the trigger's WHEN asks); finds out which key it was.
create or replace function pgfleet.guard_row() returns trigger
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    wrong jsonb := case when tg_op = 'DELETE' then to_jsonb(old) else to_jsonb(new) end;
    owned boolean;
begin
    if tg_op = 'UPDATE' then
        execute format('select pgfleet.%I($1 ->> $2, $1)', tg_argv[2]) into owned using wrong, tg_argv[1];
        if owned then
            wrong := to_jsonb(old);
        end if;
    end if;
    perform pgfleet.refuse(
        'PF002', tg_argv[0], wrong ->> tg_argv[1],
        format('does not own %L of %s', wrong ->> tg_argv[1], tg_argv[0])
    );
    return null;
end $$;

-- Whether a column of this type can place rows: its text is the same in every session. (That of dates, times, floats, money and
-- bytea is a setting's, and equal numerics have many.)
create or replace function pgfleet.places(of_type oid) returns boolean
    language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive types as (
        select of_type as type
        union all
        select t.typbasetype from types join pg_type t on t.oid = types.type where t.typtype = 'd'
    )
    select bool_or(
        t.typtype = 'e'
        or t.oid in (
            'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype
        )
    )
    from types join pg_type t on t.oid = types.type where t.typtype <> 'd'
$$;

-- A table with everything that holds its rows: its partitions, which get triggers for rows from it, and tables that inherit from
-- it, which do not.
create or replace function pgfleet.parts(whole oid) returns table (relid oid, partition boolean)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive below as (
        select whole as relid
        union
        select i.inhrelid from below join pg_inherits i on i.inhparent = below.relid
    )
    select c.oid, c.relispartition from below join pg_class c on c.oid = below.relid where c.relkind in ('r', 'p')
$$;

-- The placed tables that exist, with what of their columns decides, and the arguments that their triggers have if they are right.
create or replace view pgfleet.guarding as
select
    relation, whole, key, owns, seconds, keyed, made,
    array_to_string(array[relation, key, owns, array_to_string(seconds, ','), '1'], '\000') || '\000' as arguments,
    unfit
from (
    select
        p.relation, c.oid as whole, p.key, p.owns,
        coalesce(array_agg(a.attname::text order by a.attname) filter (where a.attname <> p.key), '{}') as seconds,
        coalesce(bool_or(a.attname = p.key), false) as keyed,
        coalesce(bool_or(a.attgenerated <> ''), false) as made, -- generated columns are there after the row is written
        min(format('%I is of type %s', a.attname, format_type(a.atttypid, a.atttypmod))) filter (
            where not pgfleet.places(a.atttypid)
        ) as unfit
    from pgfleet.placed p
    join pg_catalog.pg_class c
        on c.relname = p.relation and c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
    left join pg_catalog.pg_attribute a
        on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and (a.attname = p.key or a.attname = any (p.seconds))
    group by p.relation, c.oid, p.key, p.owns
) t;

revoke all on pgfleet.guarding from public, :"app", :"monitor";
grant select on pgfleet.guarding to :"monitor";

-- Triggers that come after the guards and may change the key that these have judged.
create or replace function pgfleet.later(whole oid) returns table (relation regclass, name name)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    -- pg_trigger.h: 1 for each row, 2 before, 4 insert, 16 update.
    select t.tgrelid::regclass, t.tgname
    from pgfleet.parts(whole) p join pg_trigger t on t.tgrelid = p.relid
    where not t.tgisinternal and t.tgenabled in ('O', 'A') and t.tgtype & 3 = 3
        and (t.tgtype & 4 <> 0 and t.tgname > 'zz_pgfleet_insert' or t.tgtype & 16 <> 0 and t.tgname > 'zz_pgfleet_update')
        and t.tgfoid <> 'pgfleet.guard_row'::regproc
$$;

-- Tables whose guards are missing, disabled, made for another map or not the last to judge; tables that are placed by a column
-- that cannot place them; and tables that have guards and are no longer placed. For the monitor and the owner.
create or replace function pgfleet.unguarded() returns setof text
    language sql stable set search_path = pg_catalog, pg_temp as $$
    with wanted as (
        select g.relation, g.arguments, p.relid, name
        from pgfleet.guarding g, pgfleet.parts(g.whole) p,
            unnest(array['pgfleet_statement', 'zz_pgfleet_insert', 'zz_pgfleet_update', 'zz_pgfleet_delete']) name
    )
    select relation from wanted w
    where not exists (
        select from pg_trigger t
        where t.tgrelid = w.relid and t.tgname = w.name and t.tgenabled = 'O' and encode(t.tgargs, 'escape') = w.arguments
    )
    union
    select g.relation from pgfleet.guarding g
    where g.unfit is not null or not g.made and exists (select from pgfleet.later(g.whole))
    union
    select c.relname
    from pg_trigger t
    join pg_class c on c.oid = t.tgrelid and c.relnamespace = 'public'::regnamespace
    where t.tgfoid = 'pgfleet.guard_statement'::regproc
        and not exists (select from pgfleet.placed where relation = split_part(encode(t.tgargs, 'escape'), '\000', 1))
    order by 1
$$;

-- Make the guards of one table be as unguarded() wants them. Takes SHARE ROW EXCLUSIVE on it: who writes is waited for.
create or replace function pgfleet.attach_guard(name text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    g         pgfleet.guarding;
    old       record;
    part      record;
    arguments text;
    new_owned text;
    old_owned text;
    same      text;
begin
    select * into g from pgfleet.guarding where relation = name;
    if not found then
        for old in
            select tgname, tgrelid::regclass as relation, split_part(encode(tgargs, 'escape'), '\000', 3) as owns
            from pg_trigger
            where tgrelid = format('public.%I', name)::regclass and tgparentid = 0
                and tgfoid in ('pgfleet.guard_statement'::regproc, 'pgfleet.guard_row'::regproc)
        loop
            execute format('drop trigger %I on %s', old.tgname, old.relation);
        end loop;
        return;
    end if;
    if not g.keyed then
        raise undefined_column using
            message = format('table %s has no column %s, by which the file places its rows', g.relation, g.key), table = g.relation;
    end if;
    if g.unfit is not null then
        raise datatype_mismatch using
            message = format('column %s of table %s cannot place its rows: its text is not the same in every session',
                replace(g.unfit, ' is of type ', ', of type '), g.relation),
            hint = 'Columns that can: text, varchar, char, smallint, integer, bigint, uuid, enums, and domains over these.',
            table = g.relation;
    end if;
    arguments := format('%L, %L, %L, %L, %L', g.relation, g.key, g.owns, array_to_string(g.seconds, ','), '1');
    for part in select relid::regclass as relation from pgfleet.parts(g.whole) loop
        execute format(
            'create or replace trigger pgfleet_statement before insert or update or delete or truncate on %s
             for each statement execute function pgfleet.guard_statement(%s)', part.relation, arguments
        );
    end loop;
    select
        format('pgfleet.%I(new.%I::text, %s) is not true', g.owns, g.key, coalesce('jsonb_build_object(' || n || ')', 'null')),
        format('pgfleet.%I(old.%I::text, %s) is not true', g.owns, g.key, coalesce('jsonb_build_object(' || o || ')', 'null')),
        format('(old.%1$I::text is not distinct from new.%1$I::text', g.key) || coalesce(s, '') || ')'
    into new_owned, old_owned, same
    from (
        select
            string_agg(format('%1$L, new.%1$I::text', c), ', ') as n,
            string_agg(format('%1$L, old.%1$I::text', c), ', ') as o,
            string_agg(format(' and old.%1$I::text is not distinct from new.%1$I::text', c), '') as s
        from unnest(g.seconds) c
    ) columns;
    -- The last BEFORE triggers by name: none of them changes the row afterwards. Partitions get them from their table.
    for part in select relid::regclass as relation from pgfleet.parts(g.whole) where relid = g.whole or not partition loop
        for old in
            select * from (values
                ('insert', new_owned), ('update', format('%s or not %s and %s', new_owned, same, old_owned)), ('delete', old_owned)
            ) v (verb, refused)
        loop
            execute format(
                'create or replace trigger %I %s %s on %s for each row when (%s) execute function pgfleet.guard_row(%s)',
                'zz_pgfleet_' || old.verb, case when g.made and old.verb <> 'delete' then 'after' else 'before' end, old.verb,
                part.relation, old.refused, arguments
            );
        end loop;
    end loop;
    for old in select * from pgfleet.later(g.whole) where not g.made loop
        raise object_not_in_prerequisite_state using
            message = format('trigger %I of %s comes after the guards, and could change the key that they have judged',
                old.name, old.relation),
            hint = format('alter trigger %I on %s rename to a_name_that_sorts_before_zz_pgfleet;', old.name, old.relation),
            table = g.relation;
    end loop;
end $$;

-- All of them that have their key column, for who has just made tables; the names of those that were changed. What is placed stays
-- as it is until the end of the transaction: who places a table meanwhile sees it afterwards.
create or replace function pgfleet.attach_guards() returns setof text
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text;
begin
    lock table pgfleet.placed in share mode;
    for name in
        select u from pgfleet.unguarded() u where not exists (select from pgfleet.guarding where relation = u and not keyed)
    loop
        perform pgfleet.attach_guard(name);
        return next name;
    end loop;
end $$;

-- Triggers fire whoever may call their functions. Who may make triggers of them could have them run casts of his own as their owner.
revoke execute on function
    pgfleet.attach_guard(text), pgfleet.attach_guards(), pgfleet.guard_row(), pgfleet.guard_statement(),
    pgfleet.refuse(text, text, text, text), pgfleet.refuse_statement(text, bigint),
    pgfleet.unguarded(), pgfleet.later(oid), pgfleet.parts(oid), pgfleet.places(oid)
from public;
grant execute on function pgfleet.unguarded(), pgfleet.later(oid), pgfleet.parts(oid), pgfleet.places(oid) to :"monitor";
