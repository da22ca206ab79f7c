create table if not exists event (
    number       integer primary key,
    at           text not null,
    actor        text not null,
    what         text not null,
    subject      text not null,
    because      text not null,
    outcome      text not null check (outcome in ('began', 'ended', 'failed', 'seen')),
    took_seconds real,
    detail       text not null,
    hash         text not null  -- SHA-256 of the hash before and of the row's canonical JSON, in hexadecimal
);

-- How far another process's own file of events was taken over, in bytes; its inode tells a new file from a longer one.
create table if not exists taken_over (
    file  text primary key,
    inode integer not null,
    bytes integer not null
);
