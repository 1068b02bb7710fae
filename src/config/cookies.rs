//! The names of the cookies: services that share a host must not overwrite each other's.

use super::Service;
use super::host::Host;
use crate::session::{CookieName, CookieNameError};

/// Names the cookies of every service, and returns all names. Cookies know no ports: services that share a host
/// get names of their own. An error comes with the service whose name doesn't fit.
pub(super) fn name_cookies(
    services: &mut [Service],
    base: &str,
) -> Result<Vec<CookieName>, (usize, CookieNameError)> {
    let hosts: Vec<Vec<Host>> = services.iter().map(|service| service.hosts.clone()).collect();
    let mut names = Vec::new();
    for (i, service) in services.iter_mut().enumerate() {
        let mut others = hosts.iter().enumerate().filter(|(j, _)| i != *j);
        if others.any(|(_, others)| others.iter().any(|host| service.hosts.contains(host))) {
            let named = |base: &str| CookieName::for_service(base, &service.name).map_err(|error| (i, error));
            let (session, login) = (named(base)?, named(CookieName::LOGIN)?);
            (service.session.cookie_name, service.login_cookie) = (session, login);
        }
        for name in [&service.session.cookie_name, &service.login_cookie] {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    let texts: Vec<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
    for service in services {
        service.upstream.own_cookies.clone_from(&texts);
    }
    Ok(names)
}
