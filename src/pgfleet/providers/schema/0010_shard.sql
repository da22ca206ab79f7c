-- Which shard of which fleet this is, and which version of this folder it was prepared with.
create table if not exists pgfleet.shard (
    fleet    text        not null,
    shard    text        not null,
    prepared text        not null,
    at       timestamptz not null default now(),
    only_row boolean     primary key default true check (only_row)
);

grant select on pgfleet.shard to :"app", :"monitor";
