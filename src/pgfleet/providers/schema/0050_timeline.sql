-- Where timelines ended. With etcd Patroni's history says it; without, whoever watched a promotion notes it here, since the new
-- primary forgets it when it is restarted. Whether an acknowledged write survived is judged by it.
create table if not exists pgfleet.timeline (
    system   bigint      not null, -- PostgreSQL's system identifier
    timeline integer     not null,
    ended    pg_lsn      not null,
    at       timestamptz not null default now(),

    primary key (system, timeline)
);

grant select, insert on pgfleet.timeline to :"app";
