//! From the command line's types to plain values, one arm for each verb.

use crate::args::budgets::Budgets;
use crate::args::{
    Command, Global, admin, look,
    run::{RunArgs, SweepMode},
    serve, simulate,
};
use crate::client::Client;
use crate::commands::policy::Changes;
use crate::commands::run::sweep::{Mode, Sweep};
use crate::commands::run::{How, dev, prepare};
use crate::commands::runs::{Filter, cancel, justify, logs, wait};
use crate::commands::serve::{Logging, agent_alone, coordinator_alone, up};
use crate::commands::simulate::queue::Files;
use crate::commands::simulate::{history, placement};
use crate::commands::{
    self, Outcome, access, artifacts, budgets, completion, cost, decisions, models, nodes, policy,
    pools, quotas, runs, sync, tenants,
};
use crate::config;
use crate::failure::{Failure, exit};
use crate::output::Printer;
use crate::project::Project;
use coordinator_core::scheduler::queue::Rules;
use platform_proto::http::{NodeRequest, QuotaRequest, TenantChange, TenantRequest, TokenRequest};
use std::process::ExitCode;

/// Does what the command line says.
pub fn dispatch(printer: &Printer, global: Global, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Launcher(launcher) => {
            // Its own small process: no runtime, no other thread.
            let ended = agent::launcher::main(&launcher.socket);
            Ok(if ended == ExitCode::SUCCESS {
                exit::DONE
            } else {
                exit::ERROR
            })
        }
        Command::Completion(admin::Completion { shell }) => {
            printer.bytes(&completion::script(shell));
            Ok(exit::DONE)
        }
        Command::Reference => {
            printer.text(&completion::reference());
            Ok(exit::DONE)
        }
        Command::Simulate(simulate::Simulate {
            trace: Some(simulate::Trace::Placement(args)),
            ..
        }) => match (args.order, args.out) {
            (Some(order), Some(out)) => {
                placement::replay(printer, &args.nodes, &args.pods, &order, &out)
            }
            _ => placement::answer(&args.nodes, &args.pods),
        },
        Command::Logout => access::logout(printer, &config::home()?),
        Command::Simulate(simulate::Simulate {
            trace: Some(simulate::Trace::Queue(args)),
            ..
        }) => simulate_queue(printer, args),
        Command::Simulate(args) => {
            let Some(since) = args.history else {
                return Err(Failure::usage("nothing to replay was named")
                    .hint("platform simulate --history 30d"));
            };
            let client = client(&global)?;
            runtime(false)?.block_on(history::run(
                &client,
                printer,
                &since,
                args.quotas.as_deref(),
            ))
        }
        Command::Up(args) => start_up(printer, args),
        Command::Coordinator(args) => start_coordinator(printer, args),
        Command::Agent(args) => start_agent(printer, &global, args),
        Command::Run(args) if args.dev => {
            let home = config::home()?;
            runtime(false)?.block_on(dev::run(printer, &home, typed(*args)))
        }
        // What is wrong with the folder is said before a server is looked for.
        Command::Run(args) => {
            let how = match (args.dry_run, args.detach) {
                (true, _) => How::DryRun,
                (_, true) => How::Detach,
                _ => How::Attach,
            };
            let prepared = prepare::prepare(typed(*args))?;
            let client = client(&global)?;
            runtime(false)?.block_on(commands::run::run(&client, printer, prepared, how))
        }
        Command::Login => {
            let home = config::home()?;
            runtime(false)?.block_on(access::login(printer, &home, global.url, global.token))
        }
        Command::Sync(args) => {
            let spool = sync::spool_folder(args.spool)?;
            let client = if args.dry_run {
                None
            } else {
                Some(client(&global)?)
            };
            runtime(false)?.block_on(sync::sync(
                client.as_ref(),
                printer,
                &spool,
                args.run.as_deref(),
            ))
        }
        other => {
            let client = client(&global)?;
            runtime(false)?.block_on(ask(&client, printer, other))
        }
    }
}

fn simulate_queue(printer: &Printer, args: simulate::Queue) -> Result<u8, Failure> {
    let rules = match args.policy {
        simulate::Policy::Standard => Rules::standard(),
        simulate::Policy::LeastAttained => Rules::least_attained(),
    };
    let files = Files {
        jobs: args.jobs,
        cluster: args.cluster,
        out: args.out,
        history: args.history,
    };
    commands::simulate::queue::run(printer, &files, &rules)
}

/// Commands that are questions to, or changes of, a running platform.
async fn ask(client: &Client, printer: &Printer, command: Command) -> Outcome {
    match command {
        Command::Runs(verb) => ask_runs(client, printer, verb).await,
        Command::Ps(args) => list_runs(client, printer, args).await,
        Command::Logs(args) => show_log(client, printer, args).await,
        Command::Stop(args) => stop(client, printer, args).await,
        Command::Decisions(look::Decisions::List { limit }) => {
            decisions::list(client, printer, limit).await
        }
        Command::Decisions(look::Decisions::Replay { id }) => {
            decisions::replay(client, printer, id).await
        }
        Command::Models(look::Models::List) => models::list(client, printer).await,
        Command::Models(look::Models::Show { name }) => models::show(client, printer, &name).await,
        Command::Artifacts(look::Artifacts::List { run }) => {
            artifacts::list(client, printer, &run).await
        }
        Command::Artifacts(look::Artifacts::Download { run, path, to }) => {
            artifacts::download(client, printer, &run, path.as_deref(), to).await
        }
        Command::Cost(args) => {
            cost::report(
                client,
                printer,
                &args.by,
                &args.since,
                args.until.as_deref(),
                args.format,
            )
            .await
        }
        Command::Nodes(verb) => ask_nodes(client, printer, verb).await,
        Command::Pools(admin::Pools::List) => pools::list(client, printer).await,
        Command::Pools(admin::Pools::Show { pool }) => pools::show(client, printer, &pool).await,
        Command::Pools(admin::Pools::Create { pool, settings }) => {
            pools::put(client, printer, &pool, pool_changes(settings), false).await
        }
        Command::Pools(admin::Pools::Set { pool, settings }) => {
            pools::put(client, printer, &pool, pool_changes(settings), true).await
        }
        Command::Tenants(admin::Tenants::List) => tenants::list(client, printer).await,
        Command::Tenants(admin::Tenants::Show { tenant }) => {
            tenants::show(client, printer, &tenant).await
        }
        Command::Tenants(admin::Tenants::Create {
            tenant,
            parent,
            weight,
        }) => {
            let request = TenantRequest {
                name: tenant,
                parent,
                weight,
            };
            tenants::create(client, printer, request).await
        }
        Command::Tenants(admin::Tenants::Set {
            tenant,
            parent,
            top,
            weight,
            dry_run,
        }) => {
            let change = TenantChange {
                parent,
                top,
                weight,
                dry_run,
            };
            tenants::set(client, printer, &tenant, change).await
        }
        Command::Quotas(admin::Quotas::List) => quotas::list(client, printer).await,
        Command::Quotas(admin::Quotas::Show { tenant }) => {
            quotas::show(client, printer, tenant.as_deref()).await
        }
        Command::Quotas(admin::Quotas::Set {
            tenant,
            pool,
            model,
            gpus,
            limit,
            lend,
            remove: _,
            dry_run,
        }) => {
            quotas::set(
                client,
                printer,
                QuotaRequest {
                    tenant,
                    pool,
                    model,
                    gpu_milli: gpus,
                    limit_milli: limit,
                    lend_milli: lend,
                    dry_run,
                },
            )
            .await
        }
        Command::Budgets(verb) => ask_budgets(client, printer, verb).await,
        Command::Policy(admin::Policy::Show) => policy::show(client, printer).await,
        Command::Policy(admin::Policy::Set(args)) => {
            let (version, dry_run) = (args.version, args.dry_run);
            policy::set(client, printer, policy_changes(*args), version, dry_run).await
        }
        Command::Whoami => access::whoami(client, printer).await,
        Command::Tokens(admin::Tokens::List) => access::list_tokens(client, printer).await,
        Command::Tokens(admin::Tokens::Create {
            user,
            tenant,
            role,
            ttl,
        }) => {
            access::create_token(
                client,
                printer,
                TokenRequest {
                    user,
                    tenant,
                    role,
                    ttl_ms: ttl,
                },
            )
            .await
        }
        Command::Tokens(admin::Tokens::Revoke { id }) => {
            access::revoke_token(client, printer, &id).await
        }
        Command::Run(_)
        | Command::Sync(_)
        | Command::Up(_)
        | Command::Coordinator(_)
        | Command::Agent(_)
        | Command::Launcher(_)
        | Command::Simulate(_)
        | Command::Login
        | Command::Logout
        | Command::Completion(_)
        | Command::Reference => unreachable!("dispatched before a client was made"),
    }
}

async fn ask_runs(client: &Client, printer: &Printer, verb: look::Runs) -> Outcome {
    match verb {
        look::Runs::List(args) => list_runs(client, printer, args).await,
        look::Runs::Show { run } => runs::show(client, printer, &run).await,
        look::Runs::Logs(args) => show_log(client, printer, args).await,
        look::Runs::Cancel(args) => stop(client, printer, args).await,
        look::Runs::Justify(args) => {
            let (reason, for_ms) = (args.reason, args.for_ms);
            justify::justify(client, printer, &args.run, reason, for_ms, args.dry_run).await
        }
        look::Runs::Explain { run } => runs::explain(client, printer, &run).await,
        look::Runs::Decisions { run } => decisions::of_run(client, printer, &run).await,
        look::Runs::Compare { runs: compared } => runs::compare(client, printer, &compared).await,
        look::Runs::Wait {
            runs: waited,
            timeout,
        } => wait::wait(client, printer, &waited, timeout).await,
    }
}

async fn list_runs(client: &Client, printer: &Printer, args: look::RunsList) -> Outcome {
    if args.tracked {
        return runs::list_tracked(client, printer, args.limit, args.before).await;
    }
    let filter = Filter {
        state: args.state,
        user: args.user,
        tenant: args.tenant,
        tag: args.tag,
        array: args.array,
        limit: args.limit,
        before: args.before,
    };
    runs::list(client, printer, filter).await
}

async fn show_log(client: &Client, printer: &Printer, args: look::RunsLogs) -> Outcome {
    let wanted = logs::Wanted {
        run: args.run,
        attempt: args.attempt,
        member: args.member,
        raw: args.raw,
    };
    if args.follow {
        logs::follow(client, printer, &wanted).await
    } else {
        logs::print(client, printer, &wanted).await
    }
}

async fn stop(client: &Client, printer: &Printer, args: look::RunsCancel) -> Outcome {
    cancel::cancel(
        client,
        printer,
        &args.runs,
        args.reason,
        args.yes,
        args.dry_run,
    )
    .await
}

async fn ask_nodes(client: &Client, printer: &Printer, verb: admin::Nodes) -> Outcome {
    let request = |change: &admin::NodeChange| NodeRequest {
        reason: change.reason.clone(),
        deadline_ms: None,
        dry_run: change.dry_run,
    };
    match verb {
        admin::Nodes::List => nodes::list(client, printer).await,
        admin::Nodes::Show { node } => nodes::show(client, printer, &node).await,
        admin::Nodes::Cordon(change) => {
            nodes::change(client, printer, &change.node, "cordon", request(&change)).await
        }
        admin::Nodes::Uncordon(change) => {
            nodes::change(client, printer, &change.node, "uncordon", request(&change)).await
        }
        admin::Nodes::Drain {
            change,
            deadline,
            yes,
        } => {
            let request = NodeRequest {
                deadline_ms: Some(deadline),
                ..request(&change)
            };
            nodes::drain(client, printer, &change.node, request, yes).await
        }
    }
}

async fn ask_budgets(client: &Client, printer: &Printer, verb: Budgets) -> Outcome {
    match verb {
        Budgets::List => budgets::list(client, printer).await,
        Budgets::Show { name } => budgets::show(client, printer, &name).await,
        Budgets::Set(args) => {
            let changes = budgets::Changes {
                tenant: args.tenant,
                tag: args.tag,
                amount_micro: args.amount,
                period: args.period,
                warn_at_percent: args.warn_at,
                stop: (args.stop || args.no_stop).then_some(args.stop),
            };
            budgets::set(client, printer, &args.name, changes, args.dry_run).await
        }
        Budgets::Remove { name, dry_run } => budgets::remove(client, printer, &name, dry_run).await,
    }
}

fn policy_changes(args: admin::PolicySet) -> Changes {
    Changes {
        require_tags: args.require_tags,
        no_require_tags: args.no_require_tags,
        tag_mode: args.tag_mode,
        caps: args.caps,
        no_caps: args.no_caps,
        cap_sums: args.cap_sums,
        no_cap_sums: args.no_cap_sums,
        prices: args.prices,
        no_prices: args.no_prices,
        prices_from_us: args.from,
        default_price: args.default_price,
        currency: args.currency,
        minimum_run_ms: args.minimum_run,
        fair_share_half_life_ms: args.fair_share_half_life,
        priority_classes: args.priority_classes,
        no_priority_classes: args.no_priority_classes,
        reservation_after_ms: args.reservation_after,
        idle_below_percent: args.idle_below,
        idle_warn_after: args.idle_warn_after,
        idle_stop_after: args.idle_stop_after,
        longest_justification_ms: args.longest_justification,
        retry_wait_ms: args.retry_wait,
        retry_wait_longest_ms: args.retry_wait_longest,
    }
}

fn typed(args: RunArgs) -> prepare::Typed {
    let sweep = (!args.sweeps.is_empty()).then_some(Sweep {
        parameters: args.sweeps,
        mode: match args.sweep_mode {
            Some(SweepMode::Random) => Mode::Random,
            Some(SweepMode::Grid) | None => Mode::Grid,
        },
        samples: args.samples,
        seed: args.seed,
        at_most: args.at_most,
    });
    prepare::Typed {
        command: args.command,
        flags: Project {
            name: args.name,
            gpus: args.gpus,
            gpu_share_milli: args.gpu_fraction,
            gpu_memory_mib: args.gpu_memory,
            gpu_model: args.gpu_model,
            nodes: args.nodes,
            cpu_milli: args.cpus,
            memory_mib: args.memory,
            pool: args.pool,
            model: args.model,
            priority: args.priority,
            time_limit_ms: args.time_limit,
            retries: args.retries,
            start_within_ms: args.start_within,
            warn_before: args.warn_before,
            preemptible: args.no_preempt.then_some(false),
            spread: args.spread.then_some(true),
            image: args.image,
            requirements: args.requirements,
            tags: args.tags.into_iter().collect(),
            environment: args.environment.into_iter().collect(),
        },
        no_requirements: args.no_requirements,
        tenant: args.tenant,
        after: args.after,
        array: args.array,
        sweep,
        folder: args.folder,
        max_upload_bytes: args.max_upload,
    }
}

fn start_up(printer: &Printer, args: serve::Up) -> Outcome {
    commands::serve::log(&logging(printer, &args.logging))?;
    let home = config::home()?;
    let started = up::Up {
        data: args.data.unwrap_or_else(|| home.join("data")),
        home,
        listen: args.listen,
        devices: commands::serve::devices(&args.devices, args.simulated_readings)?,
        node: commands::serve::node_name(args.node),
        pool: args.pool,
        rack: args.rack,
    };
    runtime(true)?.block_on(up::up(printer, started))
}

fn start_coordinator(printer: &Printer, args: serve::Coordinator) -> Outcome {
    commands::serve::log(&logging(printer, &args.logging))?;
    let home = config::home()?;
    let data = args
        .data
        .unwrap_or_else(|| home.join("data").join("coordinator"));
    runtime(true)?.block_on(coordinator_alone::run(printer, &home, data, args.listen))
}

fn start_agent(printer: &Printer, global: &Global, args: serve::Agent) -> Outcome {
    commands::serve::log(&logging(printer, &args.logging))?;
    let home = config::home()?;
    // `client.json` holds a person's token, which no agent may use.
    let (Some(url), Some(token)) = (global.url.as_deref(), global.token.as_deref()) else {
        return Err(Failure::usage("an agent needs --url and --token")
            .hint("platform tokens create --user NODE --role agent"));
    };
    let endpoint = config::endpoint(Some(url), Some(token), None)?;
    let data = args.data.unwrap_or_else(|| home.join("data").join("agent"));
    let devices = commands::serve::devices(&args.devices, args.simulated_readings)?;
    let node = commands::serve::node_name(args.node);
    runtime(true)?.block_on(agent_alone::run(
        printer, endpoint, data, node, args.pool, args.rack, devices,
    ))
}

fn logging(printer: &Printer, args: &serve::Logging) -> Logging {
    Logging {
        filter: args.log.clone(),
        format: args.log_format,
        colour: printer.err.on,
    }
}

fn client(global: &Global) -> Result<Client, Failure> {
    let file = config::home().and_then(|home| config::read_client_file(&home));
    // With both flags the file is not needed, so what is wrong with it does not matter.
    let file = match (global.url.is_some() && global.token.is_some(), file) {
        (_, Ok(file)) => file,
        (true, Err(_)) => None,
        (false, Err(failure)) => return Err(failure),
    };
    Client::new(config::endpoint(
        global.url.as_deref(),
        global.token.as_deref(),
        file,
    )?)
}

/// A server wants every core; a client is one conversation.
fn runtime(server: bool) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = if server {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder
        .enable_all()
        .build()
        .map_err(|error| Failure::error(format!("cannot start: {error}")))
}

fn pool_changes(settings: admin::PoolSettings) -> pools::Changes {
    pools::Changes {
        description: settings.description,
        order: settings.order,
        age_bound_ms: settings.age_bound,
    }
}
